"""The method over HTTP: decode, admit, detect, answer. Start it with `python -m modeguard.service`."""
