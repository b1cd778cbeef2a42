// @opensdks/sdk-salesloft, pointed at the proxy by its own option `baseUrl`.
// Its types ask for an authorization header, its code does not: none is given.
import { initSDK } from '@opensdks/runtime'
import salesloft from '@opensdks/sdk-salesloft'

const client = initSDK(salesloft, { baseUrl: process.argv[2] })

const me = await client.GET('/v2/me.json')
const people = await client.GET('/v2/people.json', {
  params: { query: { per_page: 2, ids: [1, 2, 3] } },
})
const created = await client.POST('/v2/people.json', {
  body: { email_address: 'grace@opensdks.example', first_name: 'Grace' },
})
const id = created.data.data.id
const updated = await client.PUT('/v2/people/{id}.json', {
  params: { path: { id } },
  body: { title: 'Rear Admiral' },
})
const deleted = await client.DELETE('/v2/people/{id}.json', { params: { path: { id } } })
const missing = await client
  .GET('/v2/people/{id}.json', { params: { path: { id } } })
  .catch((error) => ({ code: error.code, error: error.error }))

console.log(
  JSON.stringify({
    me: me.data.data,
    people: people.data.data,
    created: created.data.data,
    updated: updated.data.data,
    deleted: deleted.response.status,
    missing,
  }),
)
