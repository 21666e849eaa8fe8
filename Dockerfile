# The image of colo-compare: the daemon, and colo-tap-setup for an init container. See docs/container.md.

FROM python:3.11-slim-bookworm AS build
# The wheel is compiled, or the build fails: sources alone run several times slower.
ENV COLO_COMPARE_COMPILE=require
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The environment that is taken over has no pip in it: the builder's does its work from outside.
RUN python3 -m venv /builder \
    && /builder/bin/pip wheel --no-cache-dir --wheel-dir /wheels . \
    && python3 -m venv --without-pip /opt/colo-compare \
    && /builder/bin/pip --python /opt/colo-compare/bin/python install \
        --no-cache-dir --no-index --find-links /wheels colo-compare \
    && mkdir /empty

FROM python:3.11-slim-bookworm
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="colo-compare" \
      org.opencontainers.image.description="A COLO network proxy: releases a primary VM's output only once its secondary has said the same" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/colo-compare /opt/colo-compare
# The control socket's directory, for when no tmpfs is mounted there.
COPY --from=build --chown=65532:65532 /empty /run/colo-compare
ENV PATH=/opt/colo-compare/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
# It is healthy when the daemon answers, protected (0) or not (1): a pair that has lost its secondary serves on.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
    CMD ["/bin/sh", "-c", "colo-compare status >/dev/null 2>&1; [ $? -le 1 ]"]
ENTRYPOINT ["colo-compare"]
CMD ["run", "-c", "/etc/colo-compare/pair.toml"]
