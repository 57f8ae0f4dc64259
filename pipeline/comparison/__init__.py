"""Several engines, asked the same questions by turns."""
