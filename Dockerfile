# The same steps as the Makefile's, in an image. The first stage builds llama.cpp and needs a compiler; the second does not.
FROM python:3.11-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential cmake git && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pyproject.toml constraints.txt Makefile README.md beleg.py ./
COPY retriever retriever
COPY reader reader
COPY finetune finetune
COPY serving serving
RUN make install PYTHON=python3

FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 tesseract-ocr tesseract-ocr-deu \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 beleg && mkdir /data && chown beleg /data
WORKDIR /app
COPY --from=build /app /app
USER beleg
# Threads that wait for each other by spinning would slow everything else on the machine down.
ENV PATH=/app/.venv/bin:$PATH BELEG_DATA_DIR=/data BELEG_HOST=0.0.0.0 OMP_WAIT_POLICY=passive
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=30s --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz')"]
CMD ["beleg", "serve"]
