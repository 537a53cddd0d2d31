# relapse with its scenarios, for replays in labs. Not built by CI yet. Build the program first, then the image:
#
#   cargo build --release --package relapse --no-default-features
#   docker build --tag relapse .
#
# Run it. A lab makes namespaces and mounts its own /proc, which Docker's default confinement forbids:
#
#   docker run --rm --privileged relapse
#   docker run --rm --cap-add SYS_ADMIN --cap-add NET_ADMIN \
#     --security-opt seccomp=unconfined --security-opt systempaths=unconfined relapse
#
# The second runs everything except --allow-host-writes; where AppArmor confines containers, it also needs
# --security-opt apparmor=unconfined.
# Reports: --volume "$PWD/reports:/work/reports".
ARG BASE=debian:trixie-slim
FROM ${BASE}
# The program, where it is in the build context.
ARG BINARY=target/release/relapse
COPY ${BINARY} /usr/local/bin/relapse
WORKDIR /work
ENTRYPOINT ["relapse"]
CMD ["run", "--require", "netns"]
