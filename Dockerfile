# syntax=docker/dockerfile:1
# One static binary, the public certificate authorities, and nothing else.

# The list of materials has the crates of Cargo.lock, which is in the context: the last stage tells nothing of them.
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true

FROM rust:1.95-alpine AS builder
RUN apk add --no-cache ca-certificates gcc musl-dev
WORKDIR /source
COPY . .
# The binary is copied out, since a cache mount is not part of the layer. Each platform has a mount of its own: built at once,
# they would take each other's binary.
ARG TARGETARCH
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=target-$TARGETARCH,target=/source/target,sharing=locked \
    cargo build --release --locked --bin ssm-session-operator && \
    cp target/release/ssm-session-operator /ssm-session-operator

FROM scratch
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=builder /ssm-session-operator /ssm-session-operator
USER 65532:65532
ENTRYPOINT ["/ssm-session-operator"]
