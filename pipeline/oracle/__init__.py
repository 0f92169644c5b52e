"""What a token is worth: class-activation maps, and the build that stores them."""
