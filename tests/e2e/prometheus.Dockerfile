# The Prometheus that tests/e2e/prometheus.rs starts, for nodes that can pull none: this machine's,
# started as the official image starts its own. scripts/kind builds it from a directory that
# holds the program.
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot
FROM ${RUNTIME}
COPY prometheus /bin/prometheus
USER 65534:65534
ENTRYPOINT ["/bin/prometheus"]
