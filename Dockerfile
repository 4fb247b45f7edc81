# Every image of SENS Platform. scripts/build-images builds and tries them all; one by hand:
#
#   docker build --target platform-api --build-arg SERVICE=platform-api .
#
# Target and SERVICE are the same: platform-api, mqtt-ingestion-worker, http-ingestion-worker, telemetry-worker, mock-mqtt-broker or docs.
# BASE is the stage below, or any image with Python >= 3.12, its venv module with ensurepip, and a C library for manylinux wheels.
ARG BASE=base
ARG SERVICE

# In a line of its own, where programs that raise versions look for it.
FROM docker.io/library/python:3.13-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285 AS base

# What builds: Python's packaging tools and the documentation's generator, from their hashed lock. Nothing of it reaches an image.
# pip's configuration and the authorities it trusts can be handed over as secrets: they are in no layer.
FROM ${BASE} AS tools
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1 \
    PYTHONHASHSEED=0
WORKDIR /build
COPY requirements/image-build.txt requirements/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=certificates \
    python3 -m venv /tools \
    && /tools/bin/pip install --quiet --no-compile --require-hashes --no-deps --only-binary :all: -r requirements/image-build.txt

# The service's libraries, in an environment without pip. Byte code is checked against nothing, neither time nor source: the files
# of an image don't change, and two builds give the same ones.
FROM tools AS libraries
ARG SERVICE
COPY requirements requirements
RUN ln -s docs-site.txt requirements/docs.txt \
    && { test -f "requirements/${SERVICE}.txt" \
        || { echo "SERVICE is '${SERVICE}': name the image there as well as in --target: --build-arg SERVICE=platform-api" >&2; exit 1; }; }
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=certificates \
    python3 -m venv --without-pip /app \
    && /tools/bin/pip --python /app/bin/python install --quiet --no-compile --require-hashes --no-deps --only-binary :all: \
        -r "requirements/${SERVICE}.txt" \
    && rm -rf /app/include /app/.gitignore && find /app/bin -type f -delete \
    && echo /app/code > "$(/app/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/code.pth" \
    && /app/bin/python -m compileall -q -f --invalidation-mode unchecked-hash /app/lib

# The service's own code and the shared one, apart from the libraries: an upgrade moves this small layer alone.
FROM tools AS code
ARG SERVICE
ARG SOURCE_DATE_EPOCH=0
COPY pyproject.toml ./
COPY services services
RUN ln -s docs-site services/docs
# One RUN for all packages, each built in its own folder. The API's image also holds the program sens, for the administration; its own and the
# telemetry worker's what reads other people's payloads.
# hadolint ignore=DL3003
RUN case "${SERVICE}" in platform-api) further="cli payloads" ;; telemetry-worker) further=payloads ;; *) further= ;; esac \
    && for folder in common "${SERVICE}" ${further}; do \
        (cd "services/${folder}" && SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} /tools/bin/hatchling build -t wheel -d /build/wheels) || exit 1; \
    done \
    && /tools/bin/pip install --quiet --no-compile --no-index --no-deps --target /code wheels/*.whl \
    && rm -f /code/*.dist-info/direct_url.json \
    && if [ -d /code/bin ]; then sed -i '1s|^#!.*|#!/app/bin/python|' /code/bin/*; fi \
    && /tools/bin/python -m compileall -q -f --invalidation-mode unchecked-hash -s /code -p /app/code /code

FROM tools AS site
COPY zensical.toml ./
COPY docs docs
RUN /tools/bin/zensical build --strict --clean

# What every image is. The base's own packaging tools are taken out of it.
FROM ${BASE} AS runtime
RUN rm -rf /usr/share/python-wheels /usr/lib/python3*/ensurepip /usr/local/lib/python3*/ensurepip \
        /usr/local/lib/python3*/site-packages/pip /usr/local/lib/python3*/site-packages/pip-* /usr/local/bin/pip*
COPY --from=libraries /app /app
COPY --from=code /code /app/code
ENV PATH=/app/code/bin:/app/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
USER 65532:65532
STOPSIGNAL SIGTERM
ARG SERVICE
ARG VERSION=0.0.0-local
ARG REVISION=unknown
ARG SOURCE=unknown
ARG CREATED=1970-01-01T00:00:00Z
ENV SENS_PRODUCT_COMMIT=${REVISION}
LABEL org.opencontainers.image.title="${SERVICE}" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.licenses="Apache-2.0"

FROM runtime AS platform-api
ENV SENS_HTTP__HOST=0.0.0.0
EXPOSE 8000
ENTRYPOINT ["python", "-m", "sens_platform_api"]

FROM runtime AS mqtt-ingestion-worker
ENV SENS_OPERATIONS__HOST=0.0.0.0
EXPOSE 8081
ENTRYPOINT ["python", "-m", "sens_mqtt_ingestion_worker"]

FROM runtime AS http-ingestion-worker
ENV SENS_HTTP__HOST=0.0.0.0 SENS_OPERATIONS__HOST=0.0.0.0
EXPOSE 8081 8090
ENTRYPOINT ["python", "-m", "sens_http_ingestion_worker"]

FROM runtime AS telemetry-worker
ENV SENS_OPERATIONS__HOST=0.0.0.0
EXPOSE 8081
ENTRYPOINT ["python", "-m", "sens_telemetry_worker"]

FROM runtime AS mock-mqtt-broker
ENV SENS_BROKER__HOST=0.0.0.0 SENS_OPERATIONS__HOST=0.0.0.0
EXPOSE 1883 1884 8081
ENTRYPOINT ["python", "-m", "sens_mock_mqtt_broker"]

FROM runtime AS docs
COPY --from=site /build/site /app/site
ENV SENS_HTTP__HOST=0.0.0.0 SENS_SITE__FOLDER=/app/site
EXPOSE 8080
ENTRYPOINT ["python", "-m", "sens_docs_site"]

# What one gets who names no image: a failure that says so.
FROM ${BASE}
RUN echo "Name the image: --target platform-api --build-arg SERVICE=platform-api, or mqtt-ingestion-worker, http-ingestion-worker, telemetry-worker, mock-mqtt-broker, docs." >&2; exit 1
