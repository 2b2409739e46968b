# vmm on a CPU, with all that training, evaluation and the page of `vmm app` need.
#   docker build -t vmm .
#   docker run --rm -v "$PWD:/work" vmm fit -c stage2_vtt.yaml
#   docker run --rm -v "$PWD:/work" -p 7860:7860 vmm app runs/index --host 0.0.0.0
# The usual torch for Linux brings CUDA, some gigabytes. One for CPUs alone comes from an index of its
# own, which pytorch.org names: docker build --build-arg TORCH_INDEX=ADDRESS -t vmm .
FROM python:3.13-slim
ARG TORCH_INDEX=""
WORKDIR /opt/vmm
RUN python -m pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY pyproject.toml setup.py README.md LICENSE ./
COPY recipes ./recipes
COPY vmm ./vmm
RUN python -m pip install --no-cache-dir ".[train,lora,app]"
RUN useradd --create-home vmm && mkdir /work && chown vmm /work
USER vmm
WORKDIR /work
RUN vmm doctor
EXPOSE 7860
ENTRYPOINT ["vmm"]
CMD ["--help"]
