"""What README quotes, measured: `make bench`. Nothing here is imported by rayfold."""
