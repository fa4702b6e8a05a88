\set id :id + 1
\sleep 50 ms
insert into client_rows (client, id) values ('pgbench', :id);
