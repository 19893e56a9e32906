"""What the interpreter of `interpreter.trace` ran: many modules of the standard library, and memory that comes and goes."""

import asyncio, concurrent.futures, csv, ctypes, decimal, email.message, fractions, gzip, hashlib, http.server, json
import logging.config, multiprocessing, pickle, random, re, sqlite3, ssl, statistics, tarfile, threading, unittest
import urllib.request, xml.etree.ElementTree, zipfile

random.seed(1)


def churn(rounds):
    kept = []
    for _ in range(rounds):
        kept.append(bytearray(random.randrange(1, 3_000_000)))
        if len(kept) > 8:
            kept.pop(random.randrange(len(kept)))
        table = {number: str(number) for number in range(random.randrange(60_000))}
        json.loads(json.dumps(table))
    return sum(map(len, kept))


with concurrent.futures.ThreadPoolExecutor(3) as pool:
    total = sum(pool.map(churn, [200, 200, 200]))
print(total)
