# PostgreSQL with msgsys, preloaded and created in the first database. Build with --build-arg PG_MAJOR=N for another version.
ARG PG_MAJOR=17

FROM postgres:${PG_MAJOR}-bookworm AS build
RUN apt-get update && \
    apt-get install -y --no-install-recommends gcc libc6-dev make libcurl4-openssl-dev libhiredis-dev libmicrohttpd-dev npm pkg-config libssl-dev librdkafka-dev postgresql-server-dev-$PG_MAJOR
COPY . /src
RUN make -C /src clean && make -C /src -j2 && make -C /src install DESTDIR=/out

FROM postgres:${PG_MAJOR}-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends libcurl4 libhiredis0.14 libmicrohttpd12 librdkafka1 ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/ /
COPY docker/10-msgsys.sql /docker-entrypoint-initdb.d/
COPY docker/entrypoint /usr/local/bin/msgsys-entrypoint
# new data directories take their configuration from the sample
RUN echo "shared_preload_libraries = 'msgsys'" >>/usr/share/postgresql/postgresql.conf.sample && \
    echo "include_if_exists = '/var/run/postgresql/msgsys.conf'" >>/usr/share/postgresql/postgresql.conf.sample
ENTRYPOINT ["msgsys-entrypoint"]
CMD ["postgres"]
