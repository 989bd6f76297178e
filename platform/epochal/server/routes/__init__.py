"""What the server answers, one module for each thing that is asked about."""
