from .server import Explorer as Explorer
