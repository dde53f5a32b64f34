#!/usr/bin/env bash
# Fetches the servers that tests run against into the cache, once.
#
# usage: scripts/servers.sh [versitygw] [hdfs] [-h | --help]
#
#   versitygw   S3: built from its sources by Go
#   hdfs        HDFS: its jars, by Maven
#
# Without a name all of them. Tests start them by themselves, on free ports of this machine.

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

wanted=()
while (($#)); do
  case $1 in
    versitygw | hdfs) wanted+=("$1"); shift ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done
((${#wanted[@]})) || wanted=(versitygw hdfs)

for server in "${wanted[@]}"; do
  "need_$server"
done
