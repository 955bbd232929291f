"""Commands that print the numbers which the documentation states."""
