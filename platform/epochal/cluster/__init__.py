"""Where jobs run: this machine and its fitness (`machine`), clusters on it and on Kubernetes."""
