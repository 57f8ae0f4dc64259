"""What the job, the engine and its peers do in a second."""
