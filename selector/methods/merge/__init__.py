"""Methods that act inside the blocks: they merge or drop tokens by what a block shows of them."""
