/* Who runs the machine: the hand-over from a source to a destination, for Spin (`make model`).
 *
 * The ends are those of migpool/migration/source.py, completion.py, return_path.py and destination.py, from the moment
 * before the machine stops. Every step of either end may be followed by a crash of it, a cancel, an error of a device, or
 * a time limit that passes; a message may be under way for any time; each connection and direction may be cut at any
 * time, with all that is under way in it. A connection keeps its order and overtakes any other.
 *
 * Chosen with -D:
 *   LOCAL    the connections are of one host, without TLS: nobody cuts them, and their end says that who had the other
 *            end has closed it or died. Otherwise an end counts only if the other end has said it (TLS), and a crash looks
 *            like a cut.
 *   PLAIN    the source's return path is QEMU's: no RUNNING, and the destination does not watch for the source's end.
 *   CALM     nothing goes wrong.
 *   ENDINGS  print what both ends have come to.
 * and the mistakes that the search must find, each named where it is made.
 *
 * Taken for granted: a process that died runs no machine; RUNNING finds room on a connection that is not cut (what may
 * wait there before it is a few KiB of GRANTs); an operator does what docs/hand-over.md says.
 */

mtype = { STATE, EOF, DESCRIPTION, RUNNING, SHUT_0, SHUT_1 };
/* How an end's migration ends; BACK: it failed or was cancelled, and the machine is the source's. */
#define NOTHING     0
#define BACK        1
#define COMPLETED   2
#define UNCONFIRMED 3

bool here = true;              /* the machine runs at the source */
bool there = false;            /* ... at the destination */
bool source_lives = true, destination_lives = true;         /* the processes */
bool sent = false, heard = false;          /* "sent": the source is past the point of no return */
bool withdrawn = false, decided = false, started = false;   /* the destination; "withdrawn": it has given up */
byte loaded = 0;                                            /* of two devices, each on a channel of its own */
byte source_says = NOTHING, destination_says = NOTHING;
bool hangs = false;                                         /* the destination, for ever: a shorter time is a delay */

chan data0 = [1] of { mtype };                              /* multifd channels */
chan data1 = [1] of { mtype };
chan main = [2] of { mtype };
chan back = [2] of { mtype };                               /* the return path */
bool main_ended = false, back_ended = false;                /* behind what is under way comes the end */
bool back_proven = false;                                   /* ... and who had the other end has said it, or is gone */
bool main_cut = false, back_cut = false, data_cut = false;

#ifdef CALM
#define FAULT   false
#else
#define FAULT   true
#endif

#define source_over        (source_says != NOTHING || !source_lives)
#define destination_over   (destination_says != NOTHING || !destination_lives)

inline put(queue, cut, message) {
    atomic {
        if
        :: cut -> skip
        :: else -> queue!message
        fi
    }
}

/* The process dies: its machine with it. What was under way may be lost or not. */
inline source_crash() {
    atomic { source_lives = false; here = false; main_ended = true };
    if
    :: atomic { nempty(main) -> main?_; do :: nempty(main) -> main?_ :: empty(main) -> break od }
    :: skip
    fi
}

inline destination_crash() {
    atomic { destination_lives = false; there = false; back_ended = true };
#ifdef LOCAL
    back_proven = true;
#endif
    if
    :: atomic { nempty(back) -> back?_; do :: nempty(back) -> back?_ :: empty(back) -> break od }
    :: skip
    fi
}

active proctype Source() {
    /* set-up and pre-copy: the machine runs */
    if
    :: skip
    :: FAULT -> goto failed
    :: FAULT -> goto crashed
    fi;
    here = false;                                           /* it stops */
    if
    :: put(data0, data_cut, STATE); put(data1, data_cut, STATE)
    :: FAULT -> put(data0, data_cut, STATE); goto failed
    :: FAULT -> goto failed
    :: FAULT -> goto crashed
    fi;
#ifdef SENDS_THE_END_FIRST
    put(main, main_cut, EOF);                               /* mistake: what can fail comes behind the stream's end */
    if
    :: skip
    :: FAULT -> goto failed
    fi;
#endif
    if
    :: skip
    :: FAULT -> goto failed                                 /* the last time */
    :: FAULT -> goto crashed
    fi;
    sent = true;
#ifndef SENDS_THE_END_FIRST
    put(main, main_cut, EOF);
#endif
    if
    :: put(main, main_cut, DESCRIPTION)
#ifdef TAKES_BACK_WHAT_IT_COULD_NOT_WRITE
    :: FAULT -> goto failed                                 /* mistake: the stream's end is on its way already */
#else
    :: FAULT -> goto ask
#endif
    :: FAULT -> goto crashed
    fi;

wait:
    if
    :: back?RUNNING -> goto runs_there
    :: back?SHUT_0 -> goto runs_there_and_is_over
    :: back?SHUT_1 -> goto ask                              /* its word stands: see there */
    :: back_ended && empty(back) -> goto ask
    :: back_cut -> goto ask
#ifndef WAITS_FOR_EVER                                      /* mistake: without it */
    :: FAULT -> goto ask                                    /* a cancel, or the time limit */
    :: FAULT -> goto crashed
#endif
#ifdef CALLS_IT_MOVED_TOO_EARLY
    :: heard = true; goto runs_there_and_is_over            /* mistake */
#endif
    fi;

ask:                                                        /* the end of the main channel asks the destination to give up */
    main_ended = true;
    if
    :: back?RUNNING -> goto runs_there
    :: back?SHUT_0 -> goto runs_there_and_is_over
    :: back?SHUT_1 -> goto failed
    :: back_ended && empty(back) && !back_cut && back_proven -> goto failed     /* behind a cut nothing is proven */
    :: back_ended && empty(back) && !back_proven -> goto doubt
    :: back_cut -> goto doubt
    :: FAULT -> goto silence
    :: FAULT -> goto crashed
    fi;

silence:
#ifdef TAKES_SILENCE_FOR_AN_ANSWER
    goto failed;                                            /* mistake */
#endif
doubt:
#ifdef TAKES_A_CUT_FOR_AN_END
    goto failed;                                            /* mistake */
#endif
#ifdef KEEPS_BACK_ITS_OUTCOME
    source_says = BACK;                                     /* mistake: nobody would look */
#else
    source_says = UNCONFIRMED;
#endif
    goto end;

runs_there_and_is_over:
    atomic { heard = true; main_ended = true; source_says = COMPLETED };
    goto end;

runs_there:
    heard = true;
    if
    :: back?SHUT_0 -> source_says = COMPLETED
    :: back?SHUT_1 -> goto not_as_sent
    :: back_ended && empty(back) -> goto not_as_sent
    :: back_cut -> goto not_as_sent
    :: FAULT -> goto not_as_sent
    :: FAULT -> goto crashed
    fi;
    main_ended = true;
    goto end;

not_as_sent:
#ifdef TAKES_BACK_WHAT_RUNS_THERE
    goto failed;                                            /* mistake */
#endif
    atomic { main_ended = true; source_says = UNCONFIRMED };
    goto end;

failed:
    main_ended = true;
#ifndef LEAVES_IT_STOPPED                                   /* mistake: without it */
    here = true;
#endif
    source_says = BACK;
    goto end;

crashed:
    source_crash();
end:
    skip
}

active proctype Destination() {
    bool all = false;                                       /* the stream's end has come */

load:
    do
    :: data0?STATE -> loaded++
    :: data1?STATE -> loaded++
    :: !all && !withdrawn ->
        if
        :: main?EOF -> all = true
        :: empty(main) && main_ended -> goto refuse
        :: main_cut -> goto refuse
        :: withdrawn -> goto refuse
        fi
    :: withdrawn -> goto refuse
#ifdef STARTS_WITHOUT_THE_END
    :: loaded == 2 -> break                                 /* mistake */
#endif
#ifdef STARTS_WITHOUT_ALL_STATE
    :: all -> break                                         /* mistake */
#endif
    :: all && loaded == 2 -> break
    :: FAULT -> withdrawn = true; goto refuse               /* a cancel, an error, a time limit */
    :: FAULT -> goto hung
    :: FAULT -> goto crashed
    od;

    /* The decision is one step. */
#ifdef DECIDES_IN_TWO_STEPS
    if
    :: withdrawn -> goto refuse
    :: else -> skip
    fi;
    decided = true;                                         /* mistake: it may have been given up in between */
#else
    atomic {
        if
        :: withdrawn -> goto refuse
        :: else -> decided = true
        fi
    };
#endif

    d_step { there = true; started = true };                /* the first device runs */
    if
    :: skip
#ifdef LEAVES_A_HALF_STARTED_MACHINE
    :: FAULT -> goto refuse                                 /* mistake */
#else
    :: FAULT -> there = false; goto refuse                  /* another one cannot start: all stand again, then it is said */
#endif
    :: FAULT -> goto hung
    :: FAULT -> goto crashed
    fi;

#ifndef PLAIN
    if
    :: back_cut -> destination_says = UNCONFIRMED; goto close
    :: put(back, back_cut, RUNNING)
    :: FAULT -> goto crashed
    fi;
#endif
    if
    :: put(back, back_cut, SHUT_0);
        if
        :: destination_says = COMPLETED
        :: FAULT -> goto crashed
        fi
    :: back_cut -> destination_says = UNCONFIRMED
    :: FAULT ->                                             /* it does not go on as it should, but it runs here */
#if defined(PLAIN) && !defined(CALLS_WHAT_RUNS_FAILED)
        put(back, back_cut, SHUT_0);
#else
        put(back, back_cut, SHUT_1);                        /* behind RUNNING; without it: mistake */
#endif
        destination_says = UNCONFIRMED
    :: FAULT -> goto crashed
    fi;
    goto close;

refuse:
    if
    :: put(back, back_cut, SHUT_1)
    :: FAULT -> goto crashed
    fi;
    destination_says = BACK;
close:
    atomic { back_ended = true; back_proven = true };
    goto end;
hung:
    hangs = true;
end_hung:
    false;
crashed:
    destination_crash();
end:
    skip
}

#ifndef PLAIN
/* The destination's other thread: it sees the end of the main channel before what waits there is read. */
active proctype Watch() {
    end_watch:
    (main_ended || main_cut || destination_over);
    atomic {
        if
        :: !decided -> withdrawn = true
        :: else -> skip
        fi
    }
}
#endif

#if !defined(LOCAL) && !defined(CALM)
/* What is cut stays so; what was under way is lost, or all but its end has been received. */
active proctype Network() {
    do
    :: d_step { !main_cut -> main_cut = true; do :: nempty(main) -> main?_ :: empty(main) -> break od }
    :: d_step { !back_cut -> back_cut = true; do :: nempty(back) -> back?_ :: empty(back) -> break od }
    :: d_step { !data_cut -> data_cut = true; do :: nempty(data0) -> data0?_ :: empty(data0) -> break od }
    :: break
    od
}
#endif

/* Who looks after an unconfirmed outcome: sees that the destination's process has come to its end, then where it runs. */
active proctype Operator() {
end_looks:
    if
#ifdef LOOKS_AND_DOES_NOT_WAIT
    :: source_says == UNCONFIRMED && source_lives && !heard ->      /* mistake: what does not run there yet may later */
#else
    :: source_says == UNCONFIRMED && source_lives && !heard && destination_over ->
#endif
        atomic {
            if
            :: !there -> here = true
            :: else -> skip
            fi
        }
    :: source_over && !(source_says == UNCONFIRMED && source_lives && !heard) -> skip
    fi
}

#ifdef ENDINGS
/* Of an end that died nobody can ask what it had heard; and of two that died, nothing. */
active proctype Witness() {
end_witness:
    source_over && destination_over;
    c_code {
        static const char *const ended[] = { "", "back", "completed", "unconfirmed" };
        if (now.source_lives || now.destination_lives)
            printf("ending: source %s%s, destination %s%s\n",
                now.source_lives ? ended[now.source_says] : "died", now.source_lives && now.heard ? " (heard)" : "",
                now.destination_lives ? ended[now.destination_says] : "died", now.started ? " (started)" : "");
    }
}
#endif

/* Never do two run. */
ltl never_two { [] !(here && there) }
/* Nor one that is not whole, or that was given up. */
ltl whole { [] (started -> loaded == 2 && !withdrawn) }
/* Whatever fails before the point of no return, the machine runs at the source. */
ltl back_again { [] ((source_over && source_lives && !sent) -> here) }
/* Who says that the machine is back has it, and it never runs at the destination again. */
ltl back_is_back { [] (source_says == BACK -> !there) }
/* The source says "completed" only of a machine that was started at the destination. */
ltl completed_is_moved { [] (source_says == COMPLETED -> started) }
/* If it stands at both ends and nobody died, it was the source that could not know, and said so. */
ltl standing_is_told {
    [] ((source_over && (destination_over || hangs) && source_lives && !here && !there) ->
        (source_says == UNCONFIRMED || !destination_lives))
}
/* Both come to an end. */
ltl both_end { <> (source_over && (destination_over || hangs)) }
/* If nothing goes wrong, it moves. (With CALM alone.) */
ltl moves { <> (there && !here && source_says == COMPLETED && destination_says == COMPLETED) }
