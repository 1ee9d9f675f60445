# One image for all programs of the suite: `make images` builds it. It has nothing but them, the authorities' certificates and the
# licence. What a container runs, and as whom, its manifest says: see charts/multus-vpc and docs/injector.md.

ARG GO_IMAGE=docker.io/library/golang:1.26

# The compiler runs on the machine that builds, for whatever architecture is asked for.
FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS=linux
ARG TARGETARCH
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH make build \
  DOORS="./agent ./initcontainer ./injector ./plugins/vpcipam ./plugins/vpcipvlan ./sidecar ./vpcctl"

FROM scratch
LABEL org.opencontainers.image.title=multus-vpc \
  org.opencontainers.image.source=https://github.com/multus-vpc/multus-vpc \
  org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY LICENSE /
# The agent installs the plugins that lie beside it.
COPY --from=build /src/bin/ /
USER 65532:65532
CMD ["/vpcctl", "--help"]
