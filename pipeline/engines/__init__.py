"""Engines that answer, how each sees an image and how families of models point."""
