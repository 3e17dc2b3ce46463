"""What examples are: how they are written, drawn and scored."""
