# relapse with the scenarios it carries, for replays in labs. `make image` builds the program and then this image.
#
# A lab creates namespaces and mounts its own /proc, which Docker's default confinement forbids. Either of these works:
#
#   docker run --rm --privileged relapse
#   docker run --rm --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined \
#     --security-opt systempaths=unconfined --security-opt apparmor=unconfined relapse
#
# Arguments replace `run --require netns`, such as `docker run --rm --privileged relapse run policy-route-lost`.
# Reports: --volume "$PWD/reports:/work/reports". The base needs a C library as new as the one the program was linked with.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
# Path of the program in the build context.
ARG BINARY=target/release/relapse
COPY ${BINARY} /usr/local/bin/relapse
WORKDIR /work
ENTRYPOINT ["relapse"]
CMD ["run", "--require", "netns"]
