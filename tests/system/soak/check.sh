# A check that misbehaves in each way in turn, by its process number.
words() { head -c 300000 /dev/zero | tr '\0' x; }
case $(($$ % 7)) in
0) exit 0 ;;
1) sleep 600 ;;
2) setsid sleep 2 & ;; # a daemon that keeps the output open
3) words ;;
4) words >&2; exit 3 ;;
5) kill -9 $$ ;;
6) trap '' TERM; sleep 600; sleep 600 ;;
esac
