"""A read-only web page over the candidates of this machine's database."""
