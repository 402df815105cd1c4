from .decode import DecodeError as DecodeError
from .encode import PointCloud as PointCloud
