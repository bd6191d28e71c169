# Joulebox as a container: the server (`serve`), a measuring node (`node`), or both (`up`). See docs/how-to/docker.md.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=models,postgres
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY docs/explanation/method.md docs/explanation/method.md
COPY src src
RUN python -m venv /opt/joulebox \
    && /opt/joulebox/bin/python -m pip install -c constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON}-slim
# libgomp1: llama.cpp computes with several threads.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 joulebox \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin joulebox \
    && install -d -o 10001 -g 10001 -m 0700 /data
COPY --from=build /opt/joulebox /opt/joulebox
ENV PATH=/opt/joulebox/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    JOULEBOX_DATA_DIR=/data \
    JOULEBOX_HOST=0.0.0.0
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
# A node answers nobody: where it runs from this image, compose.yaml turns this off.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["joulebox"]
CMD ["serve"]
