# Completion of migpool for fish: migpool itself says what may come next, or that a file does.
function __migpool_says
    env _MIGPOOL_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=$argv[1] _TYPER_COMPLETE_ARGS=(commandline -cp) migpool
end
complete --command migpool --no-files --condition '__migpool_says is-args' --arguments '(__migpool_says get-args)'
