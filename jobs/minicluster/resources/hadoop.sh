#!/bin/sh
# The programs hadoop, hdfs, yarn and mapred of a Hadoop assembled from Maven artifacts, for clients: the commands that
# people and mrjob call. A full class name works as a command, too.
set -eu

self=$0
while [ -h "$self" ]; do
    link=$(readlink "$self")
    case $link in
        /*) self=$link ;;
        *) self=$(dirname "$self")/$link ;;
    esac
done
home=$(cd "$(dirname "$self")/.." && pwd -P)
program=$(basename "$0")

[ $# -gt 0 ] || set -- help
command=$1
shift

case $command in
    fs | dfs) class=org.apache.hadoop.fs.FsShell ;;
    jar) class=org.apache.hadoop.util.RunJar ;;
    version) class=org.apache.hadoop.util.VersionInfo ;;
    conf) class=org.apache.hadoop.conf.ConfTool ;;
    dfsadmin) class=org.apache.hadoop.hdfs.tools.DFSAdmin ;;
    fsck) class=org.apache.hadoop.hdfs.tools.DFSck ;;
    getconf) class=org.apache.hadoop.hdfs.tools.GetConf ;;
    job) class=org.apache.hadoop.mapred.JobClient ;;
    app | application | applicationattempt | container) class=org.apache.hadoop.yarn.client.cli.ApplicationCLI ;;
    logs) class=org.apache.hadoop.yarn.client.cli.LogsCLI ;;
    node) class=org.apache.hadoop.yarn.client.cli.NodeCLI ;;
    rmadmin) class=org.apache.hadoop.yarn.client.cli.RMAdminCLI ;;
    classpath) class=org.apache.hadoop.util.Classpath ;;
    *.*) class=$command ;;
    *)
        echo "usage: $program fs|jar|version|classpath|dfsadmin|fsck|getconf|job|application|logs|node|CLASS [arguments]" >&2
        exit 2
        ;;
esac
# ApplicationCLI tells by its first argument what it is asked about.
[ "$class" != org.apache.hadoop.yarn.client.cli.ApplicationCLI ] || set -- "$command" "$@"

if [ -n "${JAVA_HOME:-}" ]; then
    java=$JAVA_HOME/bin/java
else
    java=java
fi

classes=$home/share/hadoop/common/*
[ -z "${HADOOP_CLASSPATH:-}" ] || classes=$classes:$HADOOP_CLASSPATH
[ -z "${HADOOP_CONF_DIR:-}" ] || classes=$HADOOP_CONF_DIR:$classes

# A client lives for seconds: the quick compiler and the simple collector start faster. Options are words, as in Hadoop's
# own scripts.
# shellcheck disable=SC2086
exec "$java" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto -Djava.net.preferIPv4Stack=true \
    --add-opens=java.base/java.lang=ALL-UNNAMED -Dhadoop.home.dir="$home" \
    ${HADOOP_OPTS:-} ${HADOOP_CLIENT_OPTS:-} -cp "$classes" "$class" "$@"
