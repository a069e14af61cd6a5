"""A peer at a distance, in one network namespace: a TUN interface whose packets come back after a delay with source
and destination exchanged. What goes to PEER arrives here as if PEER had sent it to us, and the answer returns the
same way. Exchanging the addresses leaves every checksum right.

Usage: mirror.py OWN PEER MILLISECONDS. Prints "ready", and runs until standard input ends.
"""

import collections
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000

own, peer, delay = sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000
tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"mirror", IFF_TUN | IFF_NO_PI))
subprocess.run(["ip", "address", "add", own, "peer", peer, "dev", "mirror"], check=True)
subprocess.run(["ip", "link", "set", "mirror", "up"], check=True)
print("ready", flush=True)

queue = collections.deque()  # (when it is due, packet): the delay is one for all, so in order
while True:
    timeout = max(0, queue[0][0] - time.monotonic()) if queue else None
    readable, _, _ = select.select([tun, sys.stdin], [], [], timeout)
    if sys.stdin in readable:
        break
    if tun in readable:
        packet = os.read(tun, 65536)
        if packet[0] >> 4 == 4:
            queue.append((time.monotonic() + delay, packet[:12] + packet[16:20] + packet[12:16] + packet[20:]))
    while queue and queue[0][0] <= time.monotonic():
        os.write(tun, queue.popleft()[1])
