"""The method over HTTP: decode, admit, detect, answer. Start it with `python -m modeguard.service`.

At the top are the process (`__main__`), the application put together (`app`), the settings and the logs. Its rooms:

    http/        what every API over HTTP shares: bodies, multipart, the envelope of a request, problems
    inference/   bundles in memory, decoding, judging and the threads that do it; knows nothing of HTTP
    api/         one file an API: requests in, answers out

No maths lives here, and nothing of `offline`. This door exports nothing, so that a room is imported without the others.
"""

__all__: list[str] = []
