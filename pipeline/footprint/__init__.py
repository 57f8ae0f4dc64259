"""What an image costs in KV bytes, before any is spent."""
