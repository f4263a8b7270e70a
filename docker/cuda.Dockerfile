# syntax=docker/dockerfile:1
# The service on NVIDIA GPUs. Build from the repository's root:
#   docker build -f docker/cuda.Dockerfile --build-arg COMPUTE_CAP=90 -t proxygrad:cuda .

FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS build
COPY --from=rust:1-bookworm /usr/local/cargo /usr/local/cargo
COPY --from=rust:1-bookworm /usr/local/rustup /usr/local/rustup
# Compute capability of the GPUs: 80 for A100, 89 for L4 and RTX 40, 90 for H100.
ARG COMPUTE_CAP=80
ENV PATH=/usr/local/cargo/bin:$PATH RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo \
    CUDA_COMPUTE_CAP=$COMPUTE_CAP
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY crates crates
COPY src src
COPY openapi openapi
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --features cuda --bin proxygrad && cp target/release/proxygrad /proxygrad

FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /data proxygrad
COPY --from=build /proxygrad /usr/local/bin/proxygrad
USER proxygrad
ENV PROXYGRAD_LISTEN=0.0.0.0:8080 PROXYGRAD_DATA_DIR=/data PROXYGRAD_LOG_FORMAT=json PROXYGRAD_DEVICES=cuda:0
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["proxygrad", "healthcheck"]
ENTRYPOINT ["proxygrad"]
CMD ["serve"]
