# Completion of pesto(1) for fish.
set -l commands status flows metrics wait resync batch
complete -c pesto -n "test (count (commandline -opc)) -eq 1" -a "$commands"
complete -c pesto -s A -l add -d 'Add what follows'
complete -c pesto -s D -l delete -d 'Delete what follows'
complete -c pesto -s C -l clear -x -a 'HOST SPLICE' -d 'Empty a table'
complete -c pesto -s t -l tcp-ports -x -a 'auto all none' -d 'TCP into the namespace'
complete -c pesto -s u -l udp-ports -x -a 'auto all none' -d 'UDP into the namespace'
complete -c pesto -s T -l tcp-ns -x -a 'auto all none' -d 'TCP out of the namespace'
complete -c pesto -s U -l udp-ns -x -a 'auto all none' -d 'UDP out of the namespace'
complete -c pesto -s k -l keep -d 'Keep what can be done'
complete -c pesto -s s -l show -d 'Show before and after'
complete -c pesto -n "__fish_seen_subcommand_from status flows" -l json -d 'For programs'
complete -c pesto -n "__fish_seen_subcommand_from wait" -l ready -d 'The instance is ready'
complete -c pesto -n "__fish_seen_subcommand_from wait" -l bound -d 'A family is bound'
complete -c pesto -n "__fish_seen_subcommand_from wait" -l generation -x -d 'Of the network'
complete -c pesto -n "__fish_seen_subcommand_from wait" -l timeout -x -d Seconds
