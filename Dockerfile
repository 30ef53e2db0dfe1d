# The image that `npm run image` makes without Docker, for those who build with it:
#
#   docker build -t REGISTRY/kubeprober:TAG .
#
# Everything in it comes from scripts/imageFiles.ts: Node, its libraries, the program and its licences. No shell.
FROM node:24-bookworm-slim AS build
WORKDIR /src
COPY package.json package-lock.json ./
RUN npm ci
COPY . .
RUN node_modules/.bin/node scripts/image.ts --rootfs /rootfs

FROM scratch
COPY --from=build /rootfs/ /
ENV HOME=/var/lib/kubeprober SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
  PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
USER 65532:65532
WORKDIR /var/lib/kubeprober
ENTRYPOINT ["kubeprober"]
