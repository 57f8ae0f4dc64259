"""The skills: each task draws an image, poses a question about it and judges an answer. No engine in here."""
