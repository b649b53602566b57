"""The wheel on Linux distributions and other Pythons, installed and used by an ordinary user in
folders that hold Debian's releases: `make test-distributions`."""
