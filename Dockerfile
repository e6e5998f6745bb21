# The server in a container. A bundle is mounted, read-only, at /bundle:
#
#   docker build -t modeguard .
#   docker run --rm -p 8000:8000 -v "$PWD/BUNDLE:/bundle:ro" modeguard
#
# PyPI's torch for Linux carries CUDA. For a smaller image without it, name an index that has torch for the CPU, in the
# version of requirements.lock:
#
#   docker build -t modeguard --build-arg TORCH_INDEX=URL .

FROM python:3.11-slim AS build

ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /src
COPY requirements.lock ./
# torch before the sources, so that a change of them does not fetch it again; another index need not have what torch needs
RUN python -m venv /opt/modeguard \
    && /opt/modeguard/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX" --no-deps} \
        --constraint requirements.lock torch torchvision

COPY pyproject.toml setup.py README.md LICENSE ./
COPY modeguard modeguard
COPY detector detector
COPY templates_store templates_store
COPY offline offline
COPY service service
# without extras: what serving needs, and the command line's `detect` and `serve`
RUN /opt/modeguard/bin/pip install --constraint requirements.lock .


FROM python:3.11-slim

RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin modeguard
COPY --from=build /opt/modeguard /opt/modeguard

ENV PATH=/opt/modeguard/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MODEGUARD_BUNDLE=/bundle \
    MODEGUARD_HOST=0.0.0.0 \
    MODEGUARD_PORT=8000

WORKDIR /app
USER 10001:10001
EXPOSE 8000

HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('MODEGUARD_PORT') or 8000), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]

CMD ["python", "-m", "modeguard.service"]
