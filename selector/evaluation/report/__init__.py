"""What an evaluation's rows say: tables, intervals and text."""
