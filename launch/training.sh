# shellcheck shell=bash disable=SC2034,SC2154
# What the scripts share that train, behind lib.sh: a trunk, and a sidecar beside it. Sourced, never run.

# Reads --out, --ranks and --scale into out, ranks and scale, which are set to what they are by default, and --arm into
# arm where that is set; --help prints the script's manual.
training_arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --out | --ranks | --scale | --arm)
        [ $# -ge 2 ] || usage_error "$1 needs a value"
        [ "$1" != --arm ] || [ -n "${arm+set}" ] || usage_error "unknown argument '$1'"
        declare -g "${1#--}=$2"
        shift
        ;;
      -h | --help)
        print_help "$0"
        exit
        ;;
      *) usage_error "unknown argument '$1'" ;;
    esac
    shift
  done
  [[ $ranks =~ ^[1-9][0-9]*$ ]] || usage_error "--ranks: expected a number, found '$ranks'"
  [[ $scale =~ ^[0-9]*\.?[0-9]+$ ]] || usage_error "--scale: expected a number, found '$scale'"
}

# so many of something, times --scale, at least 8
times() { awk -v n="$1" -v x="$scale" 'BEGIN { n = int(n * x); print n < 8 ? 8 : n }'; }

# smollm2_sidecar NAME [OPTIONS]: a fresh sidecar for SmolLM2 with four streams, unless it is there: notes of 192, written
# from layer 14, read at five layers of the upper half. `plan` is the plan's vocabulary and salt, as data has them.
# `previous` is then this one.
smollm2_sidecar() {
  previous=$1.safetensors
  shift
  [ -f "$previous" ] || "$pdt" sidecar init --model "$model" --streams 4 --layers 16,19,22,25,28 --pool-layer 14 \
    --scale-text "$top/README.md" --read-codes 2 --notes-dim 192 --snc-heads 8 --snc-head-dim 32 --adapter-dim 64 \
    --pool-heads 12 --pool-dim 48 --speculation-hidden 512 --agree-dim 64 "${plan[@]}" --plan-dim 32 \
    --plan-places 32 --block-tokens 8 --window 64 --horizon 32 --gamma 0.5 --gate 0 "$@" --out "$previous"
}

# trained NAME [OPTIONS]: trains on all ranks what the options say in folder $out/NAME, unless that is finished; what
# was interrupted goes on from its last checkpoint, to the same bits.
trained() {
  local name=$1
  shift
  [ ! -f "$name/finished" ] || return 0
  note "$name: $(date +%H:%M:%S)"
  logged "$out/$name.log" "$top/launch/mpirun" -n "$ranks" "$pdt" train "$@" --out "$name" --resume
  touch "$name/finished"
}

# stage NAME [OPTIONS]: a stage of the sidecar, from the one before; `previous` is then what it made. `model` is the
# trunk, `data` an array of --data FILE.
stage() {
  local name=$1
  shift
  trained "$name" --model "$model" --sidecar "$previous" "${data[@]}" "$@"
  previous=$name/sidecar.safetensors
}

# The stages of such a sidecar, of so many steps. File `states` keeps what lies below.
common=(--states states --log-every 10 --checkpoint-every 50 --empty-slots --stated 1)
# Streams learn the style of the texts and to read the notes that they write, which stay as they are.
together=(--stage all --batch 8 --warmup 40 --part-rate pool=0 --part-rate speculation=0 --weight speculation=0
  --weight notes=0 --softmax-sample 4000 --weight later=8 --weight unseen=0.03)
# The note head alone: below all that is conditioned, nothing of the trunk is run. Most blocks tell nothing.
note_head=(--stage 2 --passes 1 --part-rate condition=0 --part-rate plan=0 --weight plan=0 --weight notes=0
  --weight tokens=0 --weight speculation=1 --weight quiet=0.1)
# smollm2_notes PLAN_STEPS NOTE_STEPS: the planner, from states of prompts alone, and the note head.
smollm2_notes() {
  stage plan --stage 0 --steps "$1" --batch 16 --rate 0.01 --weight notes=0 "${common[@]}"
  stage speculate "${note_head[@]}" --steps "$2" --batch 16 --rate 0.004 "${common[@]}"
}

# smollm2_together NAME STEPS [OPTIONS]
smollm2_together() {
  local name=$1 steps=$2
  shift 2
  stage "$name" "${together[@]}" --steps "$steps" --rate 0.002 --weight use=3 "${common[@]}" "$@"
}
