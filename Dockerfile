# syntax=docker/dockerfile:1
# One image, two commands: `selfspec api` and `selfspec worker`. Both share two volumes: what they make (/data), and the
# bases they were given (/models, with Hugging Face's cache), which outlive it.
#
# TORCH is the requirement for torch. As it stands it is what the registry has, CUDA included; for a small CPU image
# give pip the index of CPU builds by PIP_EXTRA_INDEX_URL (see PyTorch's install page).
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG TORCH="torch==2.13.0"
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL}
RUN python -m venv /opt/selfspec
ENV PATH=/opt/selfspec/bin:$PATH
COPY requirements.lock /src/
RUN pip install --constraint /src/requirements.lock "${TORCH}" \
 && pip install --no-deps --requirement /src/requirements.lock
COPY . /src/
RUN pip install --no-deps --no-build-isolation "/src"

FROM python:${PYTHON}-slim
# libgomp: torch's threads
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 selfspec \
 && install --directory --owner selfspec --group selfspec /data /models
COPY --from=build /opt/selfspec /opt/selfspec
ENV PATH=/opt/selfspec/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/models/huggingface \
    SELFSPEC_DATA_DIR=/data \
    SELFSPEC_MODELS_DIR=/models \
    SELFSPEC_HOST=0.0.0.0 \
    SELFSPEC_PORT=8000
USER selfspec
WORKDIR /home/selfspec
VOLUME /data /models
EXPOSE 8000
ENTRYPOINT ["selfspec"]
CMD ["api"]
