#!/bin/sh
# State of a PBS job, from its full record, which also holds finished jobs: qstat -x. The server
# keeps those only with job_history_enable; without it Snakemake looks for the outputs of a job
# that is gone.
record=$(qstat -x -f "$1" 2>&1) || {
	case "$record" in
	*"Unknown Job"* | *"has finished"*) echo success ;; # missing outputs are a failure all the same
	*) echo running ;; # the server is busy: ask again
	esac
	exit 0
}
case "$record" in
*"job_state = F"*)
	case "$record" in
	*"Exit_status = 0"*) echo success ;;
	*) echo failed ;;
	esac
	;;
*) echo running ;;
esac
