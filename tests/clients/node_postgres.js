// Numbered rows by node-postgres, which takes one host: several URIs are tried in turn.
//
//   node_postgres.js write URI...    until standard input ends: a line for each attempt (docs/clients.md)
//   node_postgres.js read URI...     what it was connected to: primary or standby
'use strict'

const { Client } = require('pg')

const INSERT = "insert into client_rows (client, id) values ('node-postgres', $1)"
const WHERE = "select case when pg_is_in_recovery() then 'standby' else 'primary' end as server"

const now = () => Math.round((performance.timeOrigin + performance.now()) * 1000)
const moment = () => new Promise((resolve) => setTimeout(resolve, 50))

function say(began, number, outcome, why = '') {
  const line = String(why).replace(/\s+/g, ' ')
  process.stdout.write(`${began} ${now()} ${number} ${outcome} ${line}\n`)
}

// Connects to the first server that is what is wanted. That is tried first the next time, and last when it has been
// lost, so that a host that is gone holds nobody up.
async function connect(uris, wanted) {
  let last = new Error('no URI')
  for (const [index, connectionString] of uris.entries()) {
    // Neither limit can stand in the URI. Node.js cannot set TCP_USER_TIMEOUT, so a host that is gone while
    // an answer is awaited is noticed by the second only.
    const limits = { connectionTimeoutMillis: 2000, query_timeout: 4000, keepAlive: true }
    const client = new Client({ connectionString, ...limits })
    client.lost = false
    // Without a listener, a connection that is lost while idle ends the program.
    client.on('error', () => { client.lost = true })
    try {
      await client.connect()
      const { rows } = await client.query(WHERE)
      if (rows[0].server === wanted) {
        rotate(uris, index)
        return client
      }
      last = new Error(`${rows[0].server} at ${client.host}:${client.port}`)
    } catch (error) {
      last = error
    }
    giveUp(client)
  }
  throw last
}

function rotate(list, count) {
  list.push(...list.splice(0, count))
}

// Does not wait: a server that is gone does not say goodbye.
function giveUp(client) {
  client.end().catch(() => {})
}

async function write(uris) {
  let client = null
  let warned = false
  let goesOn = true
  process.stdin.on('end', () => { goesOn = false }).resume()
  for (let number = 1; goesOn; number++) {
    await moment()
    const began = now()
    if (client === null || client.lost) {
      if (client !== null) rotate(uris, 1)
      try {
        client = await connect(uris, 'primary')
        client.on('notice', (notice) => {
          warned = warned || notice.message.includes('synchronous replication')
        })
      } catch (error) {
        client = null
        say(began, number, 'unreachable', error.message)
        continue
      }
    }
    try {
      warned = false
      await client.query(INSERT, [number])
      if (warned) say(began, number, 'unknown', 'committed there, but not waited for')
      else say(began, number, 'acknowledged')
    } catch (error) {
      // Only an answer of severity ERROR says that it was not done.
      say(began, number, error.severity === 'ERROR' ? 'refused' : 'unknown', error.message)
      giveUp(client)
      client = null
      rotate(uris, 1)
    }
  }
  process.exit(0)
}

async function read(uris) {
  const client = await connect(uris, 'standby').catch(() => connect(uris, 'primary'))
  const { rows } = await client.query(WHERE)
  process.stdout.write(`${rows[0].server}\n`)
  await client.end()
}

const [mode, ...uris] = process.argv.slice(2)
if (mode === 'read') read(uris)
else write(uris)
