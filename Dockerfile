# The binary carries its own root certificates and time zones, so the image is the binary and nothing else.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=dev
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -buildvcs=false -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /eventflow .

FROM scratch
COPY --from=build /eventflow /eventflow
USER 65532:65532
ENTRYPOINT ["/eventflow"]
