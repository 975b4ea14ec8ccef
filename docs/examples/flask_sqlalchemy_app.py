import os

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from tenancy import SQLDirectory, TenantMixin, TenantTable
from tenancy.flask import Tenancy
from tenancy.resolvers import from_subdomain

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["APP_URL"]
db = SQLAlchemy(app)


class Tenant(TenantMixin, db.Model):  # new: the registry
    __tablename__ = "tenants"


class Todo(TenantTable, db.Model):  # new: the mixin
    id = db.Column(db.Integer, primary_key=True)
    title = db.Column(db.String, nullable=False)


tenancy = Tenancy(sessions=db, directory=SQLDirectory(Tenant), resolvers=[from_subdomain("localhost")])  # new
tenancy.init_app(app)  # new


@app.get("/todos")
def todos() -> list[str]:
    return list(db.session.scalars(db.select(Todo.title)))
