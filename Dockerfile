# syntax=docker/dockerfile:1
# The service on the CPU. For NVIDIA GPUs see docker/cuda.Dockerfile.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY crates crates
COPY src src
COPY openapi openapi
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin proxygrad && cp target/release/proxygrad /proxygrad

FROM debian:bookworm-slim
# Certificates: models are pulled over HTTPS.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /data proxygrad
COPY --from=build /proxygrad /usr/local/bin/proxygrad
USER proxygrad
ENV PROXYGRAD_LISTEN=0.0.0.0:8080 PROXYGRAD_DATA_DIR=/data PROXYGRAD_LOG_FORMAT=json
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["proxygrad", "healthcheck"]
ENTRYPOINT ["proxygrad"]
CMD ["serve"]
