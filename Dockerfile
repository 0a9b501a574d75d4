# Sekali's programs in one image, without a shell, as a user who may do nothing.
#
#   make image      where Docker's engine answers, this builds the programs in an image of Rust's:
#                   docker build --tag sekali:0.1.0 .
#                   With buildah alone it copies what cargo has built here.
#
# RUNTIME is what they run on: glibc, certificates where SSL_CERT_FILE says, and the user 65532.
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot

# The release is that of rust-toolchain.toml; the C library that of RUNTIME.
FROM docker.io/library/rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
# What cargo has downloaded and compiled is kept between builds, outside of the layers.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --workspace --bins --exclude tests && \
    mkdir /programs && \
    for program in $(find target/release -maxdepth 1 -type f -executable -name 'sekali-*'); do \
        strip -o "/programs/${program##*/}" "$program" || exit 1; \
    done

FROM ${RUNTIME} AS runtime
LABEL org.opencontainers.image.title="sekali" \
    org.opencontainers.image.description="A log and event aggregator that stores every acknowledged event once" \
    org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
# The well-known authorities are looked for only as long as the environment names no others: so that
# SSL_CERT_DIR, by which the chart adds one, does not replace them, they are named too.
ENV PATH=/usr/local/bin:/usr/bin:/bin LOG_FORMAT=json \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
EXPOSE 8080 9090
# Which program it is, is for whoever runs it to say; the gateway is what most ask for.
CMD ["sekali-aggregator"]

# From a directory that holds the programs and nothing else: see scripts/image.
FROM runtime AS prebuilt
COPY sekali-* /usr/local/bin/

FROM runtime AS built
COPY --from=build /programs/ /usr/local/bin/
