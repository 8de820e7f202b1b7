#!/bin/sh
# State of a PBS job, from its full record, which also holds finished jobs: qstat -x.
record=$(qstat -x -f "$1" 2>/dev/null) || { echo running; exit 0; } # the server is busy: ask again
case "$record" in
*"job_state = F"*)
	case "$record" in
	*"Exit_status = 0"*) echo success ;;
	*) echo failed ;;
	esac
	;;
*) echo running ;;
esac
