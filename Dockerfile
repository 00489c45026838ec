# One image for the API, workers and migrations: `docker run segmentql serve | worker | migrate ...`
# BASE needs Python 3.11 or later with venv, at the same path in both stages. It may have a digest:
# python:3.12-slim-bookworm@sha256:...
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1
WORKDIR /build
RUN python3 -m venv /opt/segmentql && python3 -m venv tools
COPY requirements.lock requirements-build.lock ./
# Only wheels: nothing is compiled, and no code of a package runs before its hash is checked. The
# second file has the build tools, with Node for the pages, whose packages have hashes, too.
RUN /opt/segmentql/bin/python -m pip install --no-deps --only-binary :all: --require-hashes \
        --requirement requirements.lock \
    && tools/bin/python -m pip install --no-deps --only-binary :all: --require-hashes \
        --requirement requirements-build.lock
# A separate layer for the console and the GraphiQL page, because they seldom change.
COPY schema.graphql ./
COPY web web
RUN tools/bin/python web/build.py --strict && rm -rf web/node_modules
COPY pyproject.toml README.md LICENSE ./
COPY alembic alembic
COPY src src
# Compiled here, because a container with a read-only file system cannot write the bytecode.
RUN tools/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && /opt/segmentql/bin/python -m pip install --no-deps wheels/*.whl \
    && /opt/segmentql/bin/python -m pip uninstall --yes pip setuptools \
    && /opt/segmentql/bin/python -m compileall -q /opt/segmentql/lib

FROM ${BASE}
LABEL org.opencontainers.image.title="SegmentQL" \
      org.opencontainers.image.description="A GraphQL server for users and the segments they belong to"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin segmentql
COPY --from=build /opt/segmentql /opt/segmentql
ENV PATH=/opt/segmentql/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["segmentql"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080", "--workers", "2"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/healthz', timeout=3)"]
