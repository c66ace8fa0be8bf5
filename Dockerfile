# docker build --target service -t ascribe-service .     API only, no torch
# docker build --target worker  -t ascribe-worker  .     Celery worker; its device and queue by ASCRIBE_DEVICE, ASCRIBE_QUEUE
FROM python:3.12-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
COPY pyproject.toml constraints.txt README.md ./
COPY ascribe ascribe
RUN useradd --create-home --uid 10001 ascribe && mkdir /data /cache /uploads /results && chown ascribe /cache /uploads /results
ENV ASCRIBE_DATA_ROOT=/data ASCRIBE_UPLOADS_DIR=/uploads ASCRIBE_RESULTS_DIR=/results

FROM base AS service
COPY service service
RUN pip install -c constraints.txt ".[service]"
USER ascribe
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"
CMD ["python", "-m", "service"]

FROM base AS worker
# Where pip should find torch's CPU build; by default it takes the package index's, with CUDA.
ARG PIP_EXTRA_INDEX_URL=
COPY worker worker
RUN pip install -c constraints.txt ".[worker]"
ENV ASCRIBE_CACHE_DIR=/cache OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false ASCRIBE_ALIVE_FILE=/tmp/ascribe-alive
USER ascribe
HEALTHCHECK --interval=20s --timeout=5s --start-period=60s CMD ["python", "-m", "worker.probe"]
CMD ["celery", "-q", "-A", "worker.app", "worker", "--without-gossip", "--without-mingle"]
